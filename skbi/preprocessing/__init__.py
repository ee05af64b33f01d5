"""Preprocessing: observations of every kind in one form, and the maps to the networks' units."""

from skbi.preprocessing.compression import Compression, Directions
from skbi.preprocessing.coordinates import ParameterMap
from skbi.preprocessing.emulator import Basis, Emulator
from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.gaps import Gaps
from skbi.preprocessing.location import Location
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, pack, to_tensor
from skbi.preprocessing.projection import Projection
from skbi.preprocessing.stabiliser import Stabiliser
from skbi.preprocessing.tailed import TailCoordinates

__all__ = [
    "Basis",
    "Compression",
    "Directions",
    "Emulator",
    "FeatureMap",
    "Gaps",
    "Location",
    "Maps",
    "Packed",
    "ParameterMap",
    "Projection",
    "Stabiliser",
    "TailCoordinates",
    "pack",
    "to_tensor",
]
