"""COST-EFF with the fewest epochs."""

import torch

from baselines.bert import Bert
from costeff.pipeline import CostEff

SMALL = CostEff(
    teacher=Bert(epochs=1, learning_rates=(1e-3,)),
    prediction_rates=(1.0,),
    effort=0.01,
    taylor_share=0.5,
)
"""A method with the fewest epochs and no search."""


CPU = torch.device("cpu")
