"""Compilation for runners that compile whole steps or nothing."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from evamm.registry import HOOKS

from ..strategies.compiling import compile_blocks


@HOOKS.register_module()
class CompileBlocksHook(Hook):
    """Compiles the blocks of the model, for mmengine's own runner.

    With :class:`evamm.EVARunner` the config key ``compile`` does the same. Arguments are those of
    :func:`evamm.engine.strategies.compile_blocks`.
    """

    def __init__(
        self,
        mode: str | None = None,
        backend: str = 'inductor',
        dynamic: bool | None = None,
        fullgraph: bool = True,
        blocks: Sequence[str] | None = None,
    ) -> None:
        self.options = {
            'mode': mode,
            'backend': backend,
            'dynamic': dynamic,
            'fullgraph': fullgraph,
            'blocks': blocks,
        }

    def before_train(self, runner: Runner) -> None:
        """Compile, after weights and averages are in place."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        compile_blocks(model, **self.options)
