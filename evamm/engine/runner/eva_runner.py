"""mmengine's runner on top of evamm's checkpoints."""

import copy
import os
from collections.abc import Callable

import torch
from mmengine.dist import broadcast_object_list, is_distributed, is_main_process
from mmengine.fileio import join_path
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from evamm.checkpoints import CheckpointError, check_options, load_checkpoint, write_checkpoint
from evamm.checkpoints.writing import remove_stale_files
from evamm.registry import RUNNERS

from ..strategies import compile_blocks, is_sharded
from ..strategies.sharded_checkpoint import (
    SHARDS,
    read_sharded,
    read_sharded_weights,
    write_sharded,
)
from . import training_state
from .background_writer import BackgroundWriter
from .find_checkpoint import INTERRUPTED, newest_good_checkpoint, read_training_checkpoint
from .resume_checks import check_state


@RUNNERS.register_module()
class EVARunner(Runner):
    """Runner that reads any EVA checkpoint, reads safely and writes atomically.

    - ``load_from`` takes a file of any dialect (official, timm, open_clip, mmpretrain, ours). The
      config key ``load_options`` holds further arguments of
      :func:`evamm.checkpoints.load_checkpoint`, such as ``dict(prefer_ema=False)``.
    - Checkpoints hold tensors and plain values only and are read without unpickling code. They
      appear under their name when they are complete; a failed write leaves the old file.
    - ``resume`` goes on with the newest checkpoint of the work folder that can be read, and with
      the random number generators of that moment.
    - ``auto_scale_lr`` counts gradient accumulation.
    - ``compile=True``, or a dict of arguments of
      :func:`evamm.engine.strategies.compile_blocks`, compiles each kind of block once.
    - ``env_cfg.tf32=True`` lets matrix products of float32 run in TF32 on a GPU, ``False`` forbids
      it; without it PyTorch's setting stays. Convolutions have a switch of their own, which is on.
    - ``model_wrapper_cfg=dict(type='evamm.FSDP2')`` shards the model over all processes.
    - Several processes run on CPUs too (gloo), for tests and small machines.

    Everything else is :class:`mmengine.runner.Runner`.
    """

    async_save = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._writer = BackgroundWriter()
        # Iteration and path of the newest checkpoint that a run can be resumed from.
        self._last_saved = (None, '')
        super().__init__(*args, **kwargs)

    def setup_env(self, env_cfg: dict) -> None:
        """Set up processes and seeds; mmengine's own start of a process group needs CUDA."""
        if self.launcher == 'pytorch' and not torch.cuda.is_available() and not is_distributed():
            torch.distributed.init_process_group('gloo')
        if env_cfg.get('tf32') is not None:
            # Not `set_float32_matmul_precision`, which may change the bits of a CPU, too.
            torch.backends.cuda.matmul.allow_tf32 = bool(env_cfg['tf32'])
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to its device and wrap it; a model on the CPU gets no device ids."""
        if self.distributed and (model_wrapper_cfg or {}).get('type') == 'evamm.FSDP2':
            # Before sharding: the same random numbers as with one process, whole files to read.
            if self._train_loop is not None and hasattr(model, 'init_weights'):
                model.init_weights()
        elif self.distributed and not torch.cuda.is_available() and not is_model_wrapper(model):
            model_wrapper_cfg = {
                'type': 'MMDistributedDataParallel',
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}),
                'device_ids': None,
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def _init_model_weights(self) -> None:
        """Draw or load the first weights; a sharded model got them before."""
        if not is_sharded(training_state.bare_model(self)):
            super()._init_model_weights()

    def _maybe_compile(self, target: str) -> None:
        """Compile the blocks of the model if the key ``compile`` says so.

        mmengine compiles whole training steps, preprocessing and loss parsing included.
        """
        options = self.cfg.get('compile')
        if options is True:
            options = {}
        if isinstance(options, dict):
            compile_blocks(training_state.bare_model(self), **options)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Register mmengine's default hooks, and those that every run of evamm has."""
        super().register_default_hooks(hooks)
        self.register_hook({'type': 'evamm.ValRNGHook'})
        self.register_hook({'type': 'evamm.DatasetMetaHook'})

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build a training loop; mmengine's two loops are built as evamm's."""
        if isinstance(loop, dict):
            loop = copy.deepcopy(loop)
            if 'by_epoch' in loop and 'type' not in loop:
                kind = 'EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop'
                loop['type'] = f'evamm.{kind}'
            elif loop.get('type') in ('EpochBasedTrainLoop', 'IterBasedTrainLoop'):
                loop['type'] = f'evamm.{loop["type"]}'
        loop = super().build_train_loop(loop)
        if not hasattr(loop, 'resume_at'):
            self.logger.warning(
                f'{type(loop).__name__} does not keep its place in the data: a resumed run will '
                'not equal the uninterrupted one bit for bit. evamm.EpochBasedTrainLoop and '
                'evamm.IterBasedTrainLoop do.'
            )
        return loop

    def load_or_resume(self) -> None:
        """Load or resume as ``load_from`` and ``resume`` say, once."""
        if self._has_loaded:
            return
        if is_main_process() and os.path.isdir(self.work_dir):
            remove_stale_files(self.work_dir)
        if self._resume:
            filename = self._load_from or self._newest_checkpoint()
            if filename is not None:
                self.resume(filename)
        elif self._load_from is not None:
            self.load_checkpoint(self._load_from)

    def _newest_checkpoint(self) -> str | None:
        """The newest readable checkpoint of the work folder, the same one for all processes."""
        found = [None]
        if is_main_process():
            found = [newest_good_checkpoint(self.work_dir)]
        broadcast_object_list(found)
        if found[0] is None:
            self.logger.info(f'No checkpoint in {self.work_dir} yet: a new run begins.')
        return found[0]

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: object = 'cpu',
    ) -> None:
        """Go on with the run that wrote ``filename``.

        Args:
            filename: Checkpoint of a training run.
            resume_optimizer: Take the optimizer state too.
            resume_param_scheduler: Take the state of the schedules too.
            map_location: Not used; files are read on the CPU and every part finds its device.

        Raises:
            CheckpointError: The file cannot be read or is no training checkpoint of this run.
        """
        checkpoint = read_training_checkpoint(filename)
        if os.path.isdir(filename):
            checkpoint = read_sharded(filename, training_state.bare_model(self))
        optim_wrapper = self.optim_wrapper if resume_optimizer else None
        check_state(checkpoint, filename, training_state.bare_model(self), optim_wrapper)
        try:
            training_state.restore(
                self,
                checkpoint,
                resume_optimizer=resume_optimizer,
                resume_param_scheduler=resume_param_scheduler,
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f'{filename}: cannot resume from it, a part of its state cannot be used '
                f'({type(error).__name__}: {error}).'
            ) from error
        self._has_loaded = True
        self.logger.info(f'Resumed from {filename} at epoch {self.epoch}, iteration {self.iter}.')

    def load_checkpoint(
        self,
        filename: str,
        map_location: object = 'cpu',
        strict: bool = False,
        revise_keys: list | None = None,
    ) -> dict:
        """Load the weights of a file of any dialect into the model.

        Args:
            filename: Checkpoint file, or folder of a sharded checkpoint.
            map_location: Not used; files are read on the CPU.
            strict: Not used; what may be missing is decided by ``load_options``.
            revise_keys: Not used; names are translated by dialect.

        Returns:
            ``dict(state_dict=...)`` with the weights as they are in the model now.

        Raises:
            CheckpointError: The file cannot be read or does not fit the model.
        """
        model = training_state.bare_model(self)
        options = self.cfg.get('load_options', {})
        check_options(options, load_checkpoint, 'load_options')
        source = filename
        if os.path.isdir(filename):
            prefer_ema = options.get('prefer_ema', True)
            source = read_sharded_weights(filename, prefer_ema=prefer_ema)
        report = load_checkpoint(model, source, **options)
        self.logger.info(f'Loaded {filename}\n{report}')
        checkpoint = {'state_dict': model.state_dict()}
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        self._has_loaded = True
        return checkpoint

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Write the state of the run to ``out_dir/filename``, completely or not at all.

        Called by every process; the first one writes. Arguments are those of
        :meth:`mmengine.runner.Runner.save_checkpoint`; ``out_dir`` is a local folder.

        Raises:
            CheckpointError: The file cannot be written; an older one of that name is unharmed.
        """
        meta = copy.copy(meta or {})
        # The loop counts an epoch (iteration) as done after the hooks that save have run.
        meta.setdefault('epoch', self.epoch + 1 if by_epoch else self.epoch)
        meta.setdefault('iter', self.iter if by_epoch else self.iter + 1)
        checkpoint = training_state.collect(
            self,
            meta=meta,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            # What is written later must not change before.
            copy_tensors=self.async_save,
        )
        path = join_path(out_dir, filename, backend_args=backend_args)
        if is_main_process():
            os.makedirs(out_dir, exist_ok=True)
        if SHARDS in checkpoint:
            write_sharded(checkpoint, path)
        elif is_main_process():
            if self.async_save:
                self._writer.write(checkpoint, path)
            else:
                write_checkpoint(checkpoint, path)
        if save_optimizer and save_param_scheduler:
            self._last_saved = (meta['iter'], path)

    def when_saved(self, action: Callable[[], None]) -> None:
        """Do something once the last checkpoint is complete; without ``async_save``, now."""
        self._writer.when_written(action)

    def wait_for_saves(self) -> None:
        """Wait until no checkpoint is being written any more.

        Raises:
            CheckpointError: The last one could not be written.
        """
        self._writer.wait()

    def save_interrupted(self) -> str:
        """Save a run that stops between two iterations, unless this was done already.

        Returns:
            The file to resume from.
        """
        done, path = self._last_saved
        if done != self.iter:
            hook = next((hook for hook in self.hooks if isinstance(hook, CheckpointHook)), None)
            folder = getattr(hook, 'out_dir', None) or self.work_dir
            name = INTERRUPTED.format(self.iter)
            self.save_checkpoint(folder, name, meta={'epoch': self.epoch, 'iter': self.iter})
            path = self._last_saved[1]
        self.wait_for_saves()
        return path

    def train(self) -> nn.Module:
        """Train; checkpoints are complete when this returns or raises."""
        try:
            model = super().train()
        except BaseException as error:
            try:
                self.wait_for_saves()
            except CheckpointError as failed:
                error.add_note(f'Also: {failed}') if hasattr(error, 'add_note') else None
            raise
        self.wait_for_saves()
        return model

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the rates by total batch / ``base_batch_size``, if ``enable`` is set.

        The total batch counts processes and accumulation; mmengine forgets the latter.
        """
        if not auto_scale_lr or not auto_scale_lr.get('enable', False):
            return
        counts = getattr(optim_wrapper, '_accumulative_counts', 1)
        self.logger.info(
            f'auto_scale_lr: every optimizer step sees {self.world_size} process(es) x batch size '
            f'x {counts} accumulated iteration(s).'
        )
        base_batch_size = auto_scale_lr['base_batch_size']
        before = [group['lr'] for group in optim_wrapper.param_groups]
        super().scale_lr(
            optim_wrapper, {**auto_scale_lr, 'base_batch_size': base_batch_size / counts}
        )
        settings = getattr(optim_wrapper, 'base_param_settings', None)
        if settings is not None and before[0]:
            # The rate of the log line, which mmengine leaves unscaled.
            settings['lr'] *= optim_wrapper.param_groups[0]['lr'] / before[0]
