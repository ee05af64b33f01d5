"""Preprocessing: observations of every kind in one form, and the maps to the networks' units."""

from skbi.preprocessing.maps import FeatureMap, Maps, ParameterMap
from skbi.preprocessing.packed import Packed, pack, to_tensor

__all__ = ["FeatureMap", "Maps", "Packed", "ParameterMap", "pack", "to_tensor"]
