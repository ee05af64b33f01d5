"""Simulation of training pairs: simulators, and `simulate`, which runs them in parallel."""

from skbi.simulation.models import simulate_models
from skbi.simulation.report import SimulationReport
from skbi.simulation.run import simulate
from skbi.simulation.simulators import DoubleMoonSimulator, FunctionSimulator

__all__ = [
    "DoubleMoonSimulator",
    "FunctionSimulator",
    "SimulationReport",
    "simulate",
    "simulate_models",
]
