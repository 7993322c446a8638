"""Runs the unmodified example scripts of Chainer and ChainerRL with the launcher, and prints which ones succeed.

    git clone --branch v7.8.1 https://github.com/chainer/chainer
    git clone --branch v0.8.0 https://github.com/chainer/chainerrl
    python tests/clients/example_scripts.py chainer chainerrl --python .venv/bin/python

The scripts run in copied folders, on small synthetic data (`example_data.py`), for an epoch or a few steps. A script
succeeds if it ends with status 0 in time, and neither it nor a child process prints a traceback. The interpreter needs
this package with its extras `examples`, `mpi` and `test`, and the packages that the scripts import:

    pip install "setuptools<81" nltk pillow progressbar2 pycocotools scipy tqdm librosa==0.9.2 optuna==3.1.1
    pip install cached-property cloudpickle opencv-python-headless
    pip install --no-deps chainerrl==0.8.0 gym==0.10.11
    pip install cmake wheel
    CMAKE_POLICY_VERSION_MINIMUM=3.5 pip install --no-deps --no-build-isolation atari-py==0.2.5

Chainer's examples need a Gym this old, and atari-py 0.2.5 includes the games. A script that needs a missing package
fails, and the output names the package. The tables omit five scripts that only download, and a unit test.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
# The last line of a traceback. The message of Chainer's InvalidType is on the lines after it.
ERROR = r"^[A-Za-z_.]*(?:Error|Exception)\b.*|^[A-Za-z_.]*InvalidType: \n(?:.*\n){4}"

# Known reasons of failures. Bugs on every stack were confirmed with --plain on Python 3.8 with NumPy 1.22.
GPU = "needs a GPU: the script takes no other device, or NCCL"
ONE_ELEMENT = "the script's own int() of an array with one element, which NumPy 2.4 refuses"
EVERY_STACK = "a bug of the script on every stack: "


class Example(NamedTuple):
    """A script, or one of ChainerRL's shell scripts, and its command line."""

    script: str
    arguments: str = ""
    cause: str = ""  # the reason if it is known to fail
    ranks: int = 0  # runs under MPI
    stdin: str = ""
    until: str = ""  # the output after which it is stopped, if it has no option to end early


CHAINER = [
    Example("glance/glance.py"),
    Example("serialization/save.py"),
    Example("serialization/load.py"),
    Example("mnist/train_mnist.py", "-e 1 -u 20"),
    Example("mnist/inference.py", "-u 20 -s result/snapshot_iter_30"),
    Example("mnist/train_mnist_custom_loop.py", "-e 1 -u 20"),
    Example("mnist/train_mnist_model_parallel.py", "-e 1 -u 20 -d @numpy -D @numpy"),
    Example("mnist/train_mnist_data_parallel.py", "-e 1 -u 20 -d @numpy -D @numpy"),
    Example("mnist/train_mnist_data_parallel_updater.py", "-e 1 -u 20", GPU),
    Example("cifar/train_cifar.py", "-e 1"),
    Example("cifar/train_cifar_custom_loop.py", "-e 1"),
    Example("static_graph_optimizations/mnist/train_mnist.py", "-e 1 -u 20"),
    Example("static_graph_optimizations/mnist/train_mnist_custom_loop.py", "-e 1 -u 20"),
    Example("static_graph_optimizations/cifar/train_cifar.py", "-e 1 -d -1"),
    Example("static_graph_optimizations/cifar/train_cifar_custom_loop.py", "-e 1 -d -1"),
    Example(
        "static_graph_optimizations/ptb/train_ptb_custom_loop.py",
        "-e 1 -u 8 -d -1 --test",
        EVERY_STACK + "its iterator has no reset(), which its evaluation calls",
    ),
    Example("ptb/train_ptb.py", "-e 1 -u 8 --test"),
    Example("ptb/gentxt.py", "-m model.npz -p the -u 8"),
    Example("ptb/train_ptb_custom_loop.py", "-e 1 -u 8 --test"),
    Example("word2vec/train_word2vec.py", "-e 1 -u 8 --test"),
    Example("word2vec/search.py", stdin="dog\n"),
    Example("pos/postagging.py", "-e 1"),
    Example("sentiment/train_sentiment.py", "-e 1 -u 8 -p 1"),
    Example("sentiment/train_recursive_minibatch.py", "-e 1 -u 8 -p 1"),
    Example("memnn/train_memnn.py", "-e 1 qa1_train.txt qa1_test.txt"),
    Example("memnn/test_memnn.py", "model qa1_test.txt"),
    Example("text_classification/train_text_classifier.py", "-e 1 -u 8 --dataset TREC", ONE_ELEMENT),
    Example(
        "text_classification/run_text_classifier.py",
        "--model-setup result/args.json",
        "needs the model that train_text_classifier.py saves",
        stdin="the old dog runs\n",
    ),
    Example("seq2seq/wmt_preprocess.py", "--vocab-file words train.en train.words"),
    Example(
        "seq2seq/seq2seq.py",
        "-e 1 -u 8 -l 1 --log-interval 1 --validation-interval 1 train.en train.fr vocabulary.en vocabulary.fr"
        " --validation-source test.en --validation-target test.fr",
    ),
    Example("vae/train_vae.py", "-e 1 --dim-h 20 --test"),
    Example("dcgan/train_dcgan.py", "-e 1 -b 16 --snapshot_interval 2 --display_interval 2"),
    Example("pix2pix/train_facade.py", "-e 1 --display_interval 1", until=r"0 +3 +\d+\.\d"),
    Example("imagenet/compute_mean.py", "list.txt"),
    Example("imagenet/train_imagenet.py", "-B 2 -b 2 -E 1 -j 1 --test list.txt list.txt"),
    Example("imagenet/train_imagenet_data_parallel.py", "-B 2 -b 2 -E 1 -j 1 --test list.txt list.txt", GPU),
    Example("image_captioning/train.py", "--batch-size 2 --max-iters 2 --val-iter 2 --snapshot-iter 2"),
    Example("image_captioning/predict.py", "--img-dir data/val2014 --model result/model_2"),
    Example("caffe_export/export.py", "--arch googlenet --out-dir exported"),
    Example("modelzoo/evaluate_caffe_net.py", "-b . -B 2 list.txt caffenet small.caffemodel"),
    Example("wavenet/train.py", "-e 1 -b 2 -l 1024 --n_layer 2 --n_loop 1 --snapshot_interval 1"),
    Example(
        "wavenet/generate.py",
        "-i VCTK-Corpus/wav48/p225/p225_000.wav -m result/snapshot_iter_1 --n_layer 2 --n_loop 1",
        "needs librosa.output, for which librosa has to be older than 0.8, and Numba than 0.50",
    ),
    Example("reinforcement_learning/dqn_cartpole.py", "-e 3 -b 4 -u 8 --replay-start-size 10 --no-record"),
    Example("reinforcement_learning/ddpg_pendulum.py", "-e 3 -b 4 -u 8 --replay-start-size 10 --no-record"),
    Example("optuna/chainer_simple.py"),
    Example("optuna/chainer_integration.py"),
    Example("optuna/chainermn_simple.py", "chainermn_simple sqlite:///chainermn_simple.db", ranks=2),
    Example("optuna/chainermn_integration.py", "chainermn_integration sqlite:///chainermn_integration.db", ranks=2),
    Example("chainermn/mnist/train_mnist.py", "-e 1 -u 20 --communicator naive", ranks=2),
    Example("chainermn/mnist/train_mnist_model_parallel.py", "-e 1 -u 20", ranks=2),
    Example("chainermn/mnist/train_mnist_dual_parallel.py", "-e 1 -u 20", ranks=4),
    Example(
        "chainermn/cifar/train_cifar.py",
        "-e 1 -b 16 --communicator naive",
        EVERY_STACK + "its VGG takes the tuple that parse_kwargs returns for the number of classes",
        ranks=2,
    ),
    Example("chainermn/dcgan/train_dcgan.py", "-e 1 -b 16 --communicator naive", ranks=2),
    Example(
        "chainermn/parallel_convolution/train.py",
        "-e 1 -b 16",
        EVERY_STACK + "its links keep a number in in_channels, which Convolution2D sets as well",
        ranks=2,
    ),
    Example(
        "chainermn/seq2seq/seq2seq.py",
        "-u 8 -s 1e --bleu",
        EVERY_STACK + "it trains, but its evaluator has None for an iterator, which the trainer finalizes at the end",
        ranks=2,
    ),
    Example(
        "chainermn/seq2seq/seq2seq_mp1.py",
        "-u 8 -s 1e --bleu",
        EVERY_STACK + "the rank that is to receive the vocabulary passes one, and ChainerMN asserts that it does not",
        ranks=2,
    ),
    Example("chainermn/imagenet/compute_mean.py", "list.txt"),
    Example("chainermn/imagenet/train_imagenet.py", "-B 2 -b 2 -E 1 -j 1 --test list.txt list.txt", GPU, ranks=2),
]

# Each one trains for a few steps, saves the agent, and demonstrates it. The argument is the device.
CHAINERRL = [
    Example("atari/reproduction/test_dqn.sh"),
    Example("atari/reproduction/test_iqn.sh"),
    Example("atari/reproduction/test_rainbow.sh"),
    Example("atari/test_a2c.sh"),
    Example("atari/test_a3c.sh"),
    Example("atari/test_acer.sh"),
    Example("atari/test_categorical_dqn.sh"),
    Example("atari/test_collect_demos.sh"),
    Example("atari/test_double_iqn.sh"),
    Example("atari/test_dqn.sh"),
    Example("atari/test_dqn_batch.sh"),
    Example("atari/test_drqn.sh"),
    Example("atari/test_nsq.sh"),
    Example("atari/test_ppo.sh"),
    Example("atlas/test_soft_actor_critic.sh"),
    Example("grasping/test_dqn.sh", cause="needs PyBullet, which has no wheel for Python 3.14"),
    Example("gym/test_a2c.sh"),
    Example("gym/test_a3c.sh"),
    Example("gym/test_acer.sh"),
    Example("gym/test_categorical_dqn.sh"),
    Example("gym/test_dqn.sh"),
    Example("gym/test_iqn.sh"),
    Example("gym/test_pcl.sh"),
    Example("gym/test_reinforce.sh"),
    Example("mujoco/reproduction/test_ddpg.sh"),
    Example("mujoco/reproduction/test_ppo.sh"),
    Example("mujoco/reproduction/test_soft_actor_critic.sh"),
    Example("mujoco/reproduction/test_td3.sh"),
    Example("mujoco/reproduction/test_trpo.sh"),
    Example("mujoco/test_ddpg.sh"),
    Example("mujoco/test_ddpg_batch.sh"),
    Example("mujoco/test_ppo.sh"),
    Example("mujoco/test_ppo_batch.sh"),
    Example("mujoco/test_trpo.sh"),
]


def run(command, folder, environment, log, limit, stdin="", until=""):
    """Runs a command, ends all of its processes, and returns a description of its failure, if any."""
    with open(log, "w+", encoding="utf-8", errors="replace") as output, tempfile.TemporaryFile("w+") as given:
        print(f"cd {folder}\n{shlex.join(map(str, command))}\n", file=output, flush=True)
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=given,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        end = time.monotonic() + limit
        try:
            while process.poll() is None:
                if until and re.search(until, log.read_text("utf-8", "replace")):
                    return ""
                if time.monotonic() > end:
                    return f"has not ended after {limit} s"
                time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text("utf-8", "replace")
    if process.returncode or "Traceback (most recent call last)" in text:
        errors = re.findall(ERROR, text, re.MULTILINE) or text.strip().splitlines()
        error = " ".join(errors[-1].split())
        return f"{error[:300]} (status {process.returncode})"
    return ""


class Runner:
    """Runs the scripts in copies of the checkouts."""

    def __init__(self, folder, python, is_plain):
        """Takes a folder, the command of an interpreter, and whether to run scripts without the launcher."""
        self.folder = folder
        self.python = shlex.split(python)
        self.launcher = [] if is_plain else ["-m", "rmsprop_graves"]
        self.environment = {
            **os.environ,
            "CHAINER_DATASET_ROOT": str(folder / "examples/dataset"),
            "NLTK_DATA": str(folder / "examples/nltk_data"),
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
        (folder / "logs").mkdir()

    def chainer(self, checkout):
        """Copies Chainer's examples, and makes their data."""
        shutil.copytree(checkout / "examples", self.folder / "examples")
        data = [*self.python, *self.launcher, str(HERE / "example_data.py"), "examples"]
        log = self.folder / "logs/data.txt"
        wrong = run(data, self.folder, self.environment, log, 600)
        print(f"data: {wrong or 'made'}", flush=True)

    def chainerrl(self, checkout):
        """Copies ChainerRL's examples. Their shell scripts call `python`, which is the launcher here."""
        for name in ("examples", "examples_tests"):
            shutil.copytree(checkout / name, self.folder / "chainerrl" / name)
        stand_in = self.folder / "bin/python"
        stand_in.parent.mkdir()
        stand_in.write_text(f'#!/bin/sh\nexec {shlex.join([*self.python, *self.launcher])} "$@"\n')
        stand_in.chmod(0o755)

    def command(self, example):
        """Returns the command, the folder to run it in, and the environment."""
        if example.script.endswith(".sh"):
            # The scripts make folders for the agents that they save.
            temporary = self.folder / "chainerrl/tmp"
            temporary.mkdir(exist_ok=True)
            path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
            environment = {**self.environment, "PATH": path, "TMPDIR": str(temporary)}
            return ["bash", f"examples_tests/{example.script}", "-1"], self.folder / "chainerrl", environment
        path = self.folder / "examples" / example.script
        *before, interpreter = self.python
        if example.ranks:
            before += [str(Path(interpreter).with_name("mpiexec")), "--oversubscribe", "-n", str(example.ranks)]
        command = [*before, interpreter, *self.launcher, path.name, *shlex.split(example.arguments)]
        return command, path.parent, self.environment

    def run(self, example, limit):
        """Runs one script, prints a line, and returns whether it succeeded."""
        command, folder, environment = self.command(example)
        log = self.folder / "logs" / (example.script.replace("/", "-") + ".txt")
        start = time.monotonic()
        # A script may wait for ever for a process that has failed.
        limit = min(limit, 120) if example.cause else limit
        wrong = run(command, folder, environment, log, limit, example.stdin, example.until)
        seconds = time.monotonic() - start
        print(f"{'failed' if wrong else 'ran':7}{seconds:6.1f} s  {example.script} {example.arguments}".rstrip())
        if wrong:
            print(f"{'':17}{wrong}")
        if wrong and example.cause:
            print(f"{'':17}known: {example.cause}")
        sys.stdout.flush()
        return not wrong


def main():
    """Prints the table and the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chainer", type=Path, help="a checkout of Chainer 7.8.1")
    parser.add_argument("chainerrl", type=Path, help="a checkout of ChainerRL 0.8.0")
    parser.add_argument("--python", default=sys.executable, help="the interpreter's command (default: this one's)")
    parser.add_argument("--folder", type=Path, help="a new folder to run in, which is kept, with the output in logs")
    parser.add_argument("--limit", type=int, default=600, help="seconds for each script (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="run without the launcher, to compare with an old stack")
    parser.add_argument("-k", default="", help="only the scripts whose path matches this regular expression")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runner = Runner(folder.resolve(), options.python, options.plain)
        runner.chainer(options.chainer)
        runner.chainerrl(options.chainerrl)
        for name, examples in [("Chainer", CHAINER), ("ChainerRL", CHAINERRL)]:
            chosen = [example for example in examples if re.search(options.k, example.script)]
            if chosen:
                ran = sum([runner.run(example, options.limit) for example in chosen])
                print(f"{name}: {ran} of {len(chosen)} ran\n", flush=True)


if __name__ == "__main__":
    main()
