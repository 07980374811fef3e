"""The runner: mmengine's event loop with safe reading and atomic writing."""

from .eva_runner import EVARunner

__all__ = ['EVARunner']
