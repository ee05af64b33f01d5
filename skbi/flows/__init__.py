"""Flows: conditional densities that can be evaluated and drawn from."""

from skbi.flows.coupling import Coupling, RealNVP
from skbi.flows.flow import (
    BASE_SCALES,
    FLOWS,
    ConditionalFlow,
    Layer,
    affine_columns,
    gate_columns,
    make_flow,
    register_flow,
    stack,
    unstack,
)
from skbi.flows.spline import NeuralSplineFlow

__all__ = [
    "BASE_SCALES",
    "FLOWS",
    "ConditionalFlow",
    "Coupling",
    "Layer",
    "NeuralSplineFlow",
    "RealNVP",
    "affine_columns",
    "gate_columns",
    "make_flow",
    "register_flow",
    "stack",
    "unstack",
]
