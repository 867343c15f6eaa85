"""Exports this fork's blocks alongside upstream's."""

from ultralytics.nn.modules import __all__ as stock_all
from ultralytics.nn.modules.dualconv import DualConv
from ultralytics.nn.modules.dwr import DWR, C3k2DWR
from ultralytics.nn.modules.hsfpn import ScreeningFusion, ScreeningLateral
from ultralytics.nn.modules.light_head import LightDetect

__all__ = (*stock_all, "DWR", "C3k2DWR", "DualConv", "LightDetect", "ScreeningFusion", "ScreeningLateral")
