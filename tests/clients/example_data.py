"""Makes small synthetic datasets in the formats that Chainer's example scripts read.

Usage: `python -m rmsprop_graves example_data.py FOLDER`, where FOLDER is a copy of Chainer's `examples`. Datasets that
Chainer would download go into FOLDER/dataset, which has to be the CHAINER_DATASET_ROOT; all others go beside the
scripts that read them.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
import traceback
import wave
from pathlib import Path

import numpy

# Words with their part of speech, in the Brown corpus's notation.
TEXT = (
    "the/AT a/AT cat/NN dog/NN house/NN man/NN woman/NN sees/VBZ likes/VBZ runs/VBZ big/JJ small/JJ red/JJ old/JJ "
    "new/JJ and/CC very/RB in/IN on/IN under/IN ./. ,/, ?/."
)
TAGS = dict(pair.split("/") for pair in TEXT.split())
WORDS = list(TAGS)


def sentences(count, seed=0):
    """Returns random sentences of 3 to 9 words."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 9))) for _ in range(count)]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def images(*shape, seed=0):
    return numpy.random.RandomState(seed).randint(0, 256, shape).astype("u1")


def labels(count, classes=10):
    return numpy.arange(count).astype("u1") % classes


def download(root, url, text):
    """Writes a file where Chainer's `cached_download` looks for the download from an address."""
    write(root / "_dl_cache" / hashlib.md5(url.encode()).hexdigest(), text)


def mnist(root, _):
    """MNIST with as many digits as Optuna's examples need, which choose 3,000 and 1,000."""
    (root / "pfnet/chainer/mnist").mkdir(parents=True)
    for name, count in [("train", 3_000), ("test", 1_000)]:
        numpy.savez(root / f"pfnet/chainer/mnist/{name}.npz", x=images(count, 784), y=labels(count))


def cifar(root, _):
    """CIFAR-10 with 64 images to train on and 32 to test."""
    (root / "pfnet/chainer/cifar").mkdir(parents=True)
    numpy.savez(
        root / "pfnet/chainer/cifar/cifar-10.npz",
        train_x=images(64, 3_072),
        train_y=labels(64),
        test_x=images(32, 3_072),
        test_y=labels(32),
    )


def penn_tree_bank(root, _):
    """The Penn Treebank: three texts and the vocabulary."""
    (root / "pfnet/chainer/ptb").mkdir(parents=True)
    vocabulary = ["<eos>", *WORDS]
    write(root / "pfnet/chainer/ptb/vocab.txt", "\n".join(vocabulary) + "\n")
    for seed, (name, count) in enumerate([("train", 300), ("valid", 40), ("test", 40)]):
        words = " <eos> ".join(sentences(count, seed)).split()
        ids = numpy.array([vocabulary.index(word) for word in words], "i")
        numpy.savez(root / f"pfnet/chainer/ptb/{name}.npz", x=ids)


def pretrained_models(root, _):
    """The npz files that Chainer makes from downloaded Caffe models, here with random parameters."""
    import chainer

    vision = chainer.links.model.vision
    (root / "pfnet/chainer/models").mkdir(parents=True)
    models = [
        ("bvlc_googlenet", vision.googlenet.GoogLeNet),
        ("VGG_ILSVRC_16_layers", vision.vgg.VGG16Layers),
        ("ResNet-50-model", vision.resnet.ResNet50Layers),
    ]
    for name, model in models:
        path = root / f"pfnet/chainer/models/{name}.npz"
        chainer.serializers.save_npz(path, model(pretrained_model=None), compression=False)


def question_types(root, _):
    """TREC, for text classification: numbers and questions."""
    address = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data/TREC"
    for seed, part in enumerate(["train", "test"]):
        lines = [f"{i % 3} {sentence}\n" for i, sentence in enumerate(sentences(60, seed))]
        download(root, f"{address}.{part}.all", "".join(lines))


def labeled_images(_, examples):
    """ImageNet in Caffe's format: images of 256 x 256, and a list of paths and labels."""
    from PIL import Image

    for folder in ("imagenet", "chainermn/imagenet", "modelzoo"):
        (examples / folder / "images").mkdir()
        names = [f"images/{i}.png" for i in range(4)]
        for i, name in enumerate(names):
            Image.fromarray(images(256, 256, 3, seed=i)).save(examples / folder / name)
        write(examples / folder / "list.txt", "".join(f"{name} {i}\n" for i, name in enumerate(names)))


def caffe_model(_, examples):
    """A network of three layers, whose input and output have CaffeNet's names."""
    from chainer.links.caffe.protobuf3 import caffe_pb2

    rng = numpy.random.RandomState(0)
    network = caffe_pb2.NetParameter(name="small")

    def layer(name, kind, bottom, *blobs):
        new = network.layer.add(name=name, type=kind, bottom=[bottom], top=[name])
        for shape in blobs:
            blob = new.blobs.add()
            blob.shape.dim.extend(shape)
            blob.data.extend(rng.normal(0, 0.01, numpy.prod(shape)))
        return new

    convolution = layer("conv1", "Convolution", "data", (4, 3, 11, 11), (4,)).convolution_param
    convolution.num_output, convolution.kernel_size[:], convolution.stride[:] = 4, [11], [8]
    layer("relu1", "ReLU", "conv1")
    layer("fc8", "InnerProduct", "relu1", (10, 4 * 28 * 28), (10,)).inner_product_param.num_output = 10
    (examples / "modelzoo/small.caffemodel").write_bytes(network.SerializeToString())
    numpy.save(examples / "modelzoo/ilsvrc_2012_mean.npy", numpy.full((3, 256, 256), 110, "f"))


def captions(_, examples):
    """MS COCO: eight images with one or two captions each."""
    from PIL import Image

    root = examples / "image_captioning/data"
    for seed, part in enumerate(["train2014", "val2014"]):
        (root / part).mkdir(parents=True)
        names = [f"COCO_{part}_{i}.jpg" for i in range(8)]
        for i, name in enumerate(names):
            Image.fromarray(images(64, 80, 3, seed=i)).save(root / part / name)
        texts = sentences(16, seed)
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [{"id": i, "image_id": i % 8, "caption": text} for i, text in enumerate(texts)],
        }
        write(root / f"annotations/captions_{part}.json", json.dumps(content))


def stories(_, examples):
    """The questions and answers of bAbI's first task."""
    rng = random.Random(0)
    people, places = ["Mary", "John", "Sandra"], ["hallway", "kitchen", "garden"]
    for part in ("train", "test"):
        lines = []
        for _story in range(30):
            person, place, other, there = *rng.sample(people, 1), *rng.sample(places, 2), rng.choice(places)
            lines += [f"1 {person} moved to the {there}.", f"2 {person} went to the {place}."]
            lines.append(f"3 Where is {person}? \t{place}\t2")
            lines.append(f"4 {person} travelled to the {other}.")
            lines.append(f"5 Where is {person}? \t{other}\t4")
        write(examples / f"memnn/qa1_{part}.txt", "\n".join(lines) + "\n")


def facades(_, examples):
    """The CMP Facade Database: 378 photographs, each with a map of labels of 12 kinds."""
    from PIL import Image

    (examples / "pix2pix/facade/base").mkdir(parents=True)
    for i in range(1, 379):
        path = examples / f"pix2pix/facade/base/cmp_b{i:04}"
        Image.fromarray(images(40, 30, 3, seed=i)).save(f"{path}.jpg")
        Image.fromarray(images(40, 30, seed=i) % 12 + 1).save(f"{path}.png")


def tagged_text(_, examples):
    """NLTK's Brown corpus: words with their part of speech."""
    corpus = examples / "nltk_data/corpora/brown"
    lines = [" ".join(f"{word}/{TAGS[word]}" for word in sentence.split()) for sentence in sentences(400)]
    write(corpus / "ca01", "\n\n".join(lines) + "\n")
    write(corpus / "cats.txt", "ca01 news\n")


def trees(_, examples):
    """The Stanford Sentiment Treebank: binary trees of words, with a number from 0 to 4 at each node."""
    rng = random.Random(0)

    def tree(words):
        if len(words) == 1:
            return f"({rng.randint(0, 4)} {words[0]})"
        middle = rng.randint(1, len(words) - 1)
        return f"({rng.randint(0, 4)} {tree(words[:middle])} {tree(words[middle:])})"

    for seed, part in enumerate(["train", "dev", "test"]):
        texts = [tree(sentence.split()) for sentence in sentences(20, seed)]
        write(examples / f"sentiment/trees/{part}.txt", "\n".join(texts) + "\n")


def translations(_, examples):
    """WMT: sentence pairs and vocabulary for the script of one process, and sentence pairs for ChainerMN's."""
    wmt = examples / "chainermn/seq2seq/wmt"
    for seed, language in enumerate(["en", "fr"]):
        train, test = (("\n".join(sentences(count, seed)) + "\n") for count in (60, 10))
        write(wmt / f"giga-fren.release2.fixed.{language}", train)
        write(wmt / f"dev/newstest2013.{language}", test)
        write(examples / f"seq2seq/train.{language}", train)
        write(examples / f"seq2seq/test.{language}", test)
        write(examples / f"seq2seq/vocabulary.{language}", "\n".join(WORDS) + "\n")


def speech(_, examples):
    """The VCTK corpus: recordings of one speaker, of one second each."""
    folder = examples / "wavenet/VCTK-Corpus/wav48/p225"
    folder.mkdir(parents=True)
    for i in range(10):
        with wave.open(str(folder / f"p225_{i:03}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(48_000)
            samples = (8_000 * numpy.sin(numpy.arange(48_000) * (0.02 + 0.005 * i))).astype(int)
            file.writeframes(struct.pack("<48000h", *samples))


def studies(_, examples):
    """The database of empty studies that the README of Optuna's examples asks the user to make."""
    import optuna

    for name in ("chainermn_simple", "chainermn_integration"):
        optuna.create_study(study_name=name, storage=f"sqlite:///{examples}/optuna/{name}.db", direction="maximize")


MAKERS = [
    mnist,
    cifar,
    penn_tree_bank,
    pretrained_models,
    question_types,
    labeled_images,
    caffe_model,
    captions,
    stories,
    facades,
    tagged_text,
    trees,
    translations,
    speech,
    studies,
]


def main(folder):
    """Makes all datasets. If one cannot be made, only the scripts that need it will fail."""
    examples = Path(folder).resolve()
    for make in MAKERS:
        try:
            make(examples / "dataset", examples)
        except Exception:
            print(f"Without the data of {make.__name__}:", file=sys.stderr)
            traceback.print_exc()


if __name__ == "__main__":
    main(sys.argv[1])
