"""Chainer Chemistry's gated graph neural network, on molecules that RDKit reads and describes."""

from __future__ import annotations

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer_chemistry.dataset.converters import concat_mols
from chainer_chemistry.dataset.preprocessors import GGNNPreprocessor
from chainer_chemistry.models import GGNN, MLP
from chainer_chemistry.models.prediction import GraphConvPredictor
from rdkit import Chem
from rdkit.Chem import Crippen

from clients.chainer_examples import run_trainer

# Functional groups at the end of a carbon chain: alkanes, alcohols, amines, aldehydes, acids, esters, nitriles etc.
ENDS = ("", "O", "N", "C=O", "C(=O)O", "C(=O)OC", "C#N", "Cl", "SC", "c1ccccc1")


def ggnn(optimizer, updates=300):
    """Learns Crippen's estimate of log P, the octanol-water partition coefficient, of chains of 2 to 11 carbons."""
    molecules = [Chem.MolFromSmiles("C" * length + end) for length in range(2, 12) for end in ENDS]
    preprocessor = GGNNPreprocessor()
    data = [
        (*preprocessor.get_input_features(molecule), numpy.array([Crippen.MolLogP(molecule)], "f"))
        for molecule in molecules
    ]
    predictor = GraphConvPredictor(GGNN(out_dim=32, hidden_channels=32), MLP(out_dim=1, hidden_dim=32))
    # Chainer Chemistry's Regressor calls numpy.asscalar, which NumPy 1.23 removed.
    model = L.Classifier(predictor, lossfun=F.mean_squared_error)
    model.compute_accuracy = False
    optimizer.setup(model)
    iterator = chainer.iterators.SerialIterator(data, 16)
    updater = chainer.training.updaters.StandardUpdater(iterator, optimizer, converter=concat_mols)
    return run_trainer(updater, updates)
