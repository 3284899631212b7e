"""Which layers of a jet tagger can run in 1.58 bits? Search, look, and take the file to deploy."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import bitsearch

rng = np.random.default_rng(1)
signal = rng.random(6000) < 0.5
mass = rng.normal(np.where(signal, 125.0, 105.0), 25.0)  # GeV
pt = 50 + rng.exponential(np.where(signal, 60.0, 40.0))  # GeV
features = np.stack([mass / 100, np.log(pt / 50)], 1).astype(np.float32)
labels = signal.astype(np.float32)[:, None]


def jet_tagger() -> nn.Module:
    """Build the float network."""
    body = [nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(64, 1))


result = bitsearch.search(
    jet_tagger,
    (torch.from_numpy(features), torch.from_numpy(labels)),
    loss=nn.functional.binary_cross_entropy_with_logits,
    metric=roc_auc_score,
    direction="maximize",
    outputs=("score",),
    trials=8,
    epochs=5,
    out="runs/tagger",
)
best = result.best(min_fraction=0.8)
auc = best.metrics["roc_auc_score"]
print(f"{best.executed_fraction:.1%} quantised, AUC {auc.value:.3f} ± {auc.std:.3f}: {result.file(best)}")
