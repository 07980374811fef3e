"""Train, test and use a small EVA-02 on real digit images: a check that everything works.

Every step is an ordinary tool, shown with the command that runs it. What is done already is not
done again; an interrupted training goes on where it stopped.

Example:
    python tools/quickstart.py
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
MARKER = '.quickstart'
DATA_DIR = Path('data/digits')
CONFIG = ROOT / 'configs' / 'digits' / 'eva02_tiny_digits.py'


class StepFailedError(RuntimeError):
    """A tool ended with an error; its own message is on the screen already."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart'), help=' ')
    parser.add_argument('--data-dir', type=Path, default=DATA_DIR, help=' ')
    parser.add_argument('--epochs', type=int, help='length of the training, instead of the config')
    parser.add_argument(
        '--fresh', action='store_true', help='delete the work folder and begin anew'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='passed on to the tools'
    )
    return parser.parse_args()


def run(tool: str, *arguments: object) -> None:
    """Run a tool of evamm with its output on the screen.

    Raises:
        StepFailedError: The tool failed.
    """
    command = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    print('\n$', shlex.join(['python', os.path.relpath(command[1]), *command[2:]]), flush=True)
    # Threads that wait without spinning: no slower alone, and many times faster on a busy machine.
    environment = {'OMP_WAIT_POLICY': 'PASSIVE', **os.environ, 'PYTHONUNBUFFERED': '1'}
    status = subprocess.run(command, env=environment).returncode
    if status:
        raise StepFailedError(f'tools/{tool} failed with exit status {status}, see above.')


def heading(number: int, text: str) -> None:
    print(f'\n=== {number}/5 {text} ===', flush=True)


def configured_epochs(cfg_options: list[str]) -> int:
    """Length of the training that the config and ``KEY=VALUE`` settings give."""
    from mmengine.config import Config, DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    cfg = Config.fromfile(CONFIG)
    if cfg_options:
        cfg.merge_from_dict(parser.parse_args(['--cfg-options', *cfg_options]).cfg_options)
    return cfg.train_cfg.max_epochs


class Quickstart:
    """The five steps and the files between them.

    Args:
        work_dir: Folder for everything the steps write.
        data_dir: Folder of the digits.
        epochs: Length of the training; None takes the config's.
        cfg_options: Further ``KEY=VALUE`` settings of the config.
    """

    def __init__(
        self, work_dir: Path, data_dir: Path, epochs: int | None, cfg_options: list[str]
    ) -> None:
        self.work_dir, self.data_dir = work_dir, data_dir
        self.data = data_dir / 'classification'
        # Only what differs from the config, so that the commands on the screen stay short.
        self.cfg_options = list(cfg_options)
        if data_dir != DATA_DIR:
            self.cfg_options += [
                f'{part}_dataloader.dataset.data_root={self.data}'
                for part in ('train', 'val', 'test')
            ]
        if epochs is not None:
            self.cfg_options.append(f'train_cfg.max_epochs={epochs}')
        self.epochs = configured_epochs(self.cfg_options)
        self.checkpoint = work_dir / f'epoch_{self.epochs}.pth'
        self.metrics = work_dir / 'test' / 'metrics.json'
        self.curves = work_dir / 'curves.png'
        self.infer_dir = work_dir / 'infer'

    def overrides(self) -> list[str]:
        return ['--cfg-options', *self.cfg_options] if self.cfg_options else []

    def is_current(self, result: Path) -> bool:
        """Whether a result was made from the checkpoint that is there now."""
        return result.exists() and result.stat().st_mtime >= self.checkpoint.stat().st_mtime

    def write_digits(self) -> None:
        heading(1, 'Write the digits (5,000 real MNIST images) to disk')
        if self.checkpoint.exists() and self.data.is_dir():
            print(f'done already: {self.data}')
            return
        run('dataset_converters/digits.py', self.data_dir, '--task', 'classification')

    def train(self) -> None:
        heading(2, f'Train for {self.epochs} epochs; the log shows the time left as "eta"')
        if self.checkpoint.exists():
            print(f'done already: {self.checkpoint} (--fresh trains again)')
            return
        start = time.monotonic()
        options = ['--work-dir', self.work_dir, '--resume', *self.overrides()]
        run('train.py', os.path.relpath(CONFIG), *options)
        minutes, seconds = divmod(round(time.monotonic() - start), 60)
        print(f'trained in {minutes} min {seconds} s')

    def test(self) -> None:
        heading(3, 'Test on the 1,000 images kept aside')
        if self.is_current(self.metrics):
            print(f'done already: {self.metrics}')
            return
        options = ['--work-dir', self.work_dir / 'test', '--out', self.metrics]
        options += ['--out-item', 'metrics', *self.overrides()]
        run('test.py', os.path.relpath(CONFIG), self.checkpoint, *options)

    def infer(self) -> None:
        heading(4, 'Classify one image')
        if self.is_current(self.infer_dir / 'predictions.json'):
            print(f'done already: {self.infer_dir}')
            return
        image = sorted((self.data / 'val' / '7').glob('*.png'))[0]
        options = ['--checkpoint', self.checkpoint, '--out-dir', self.infer_dir]
        run('infer.py', os.path.relpath(CONFIG), image, *options)

    def plot(self) -> None:
        heading(5, 'Draw the curves')
        if self.is_current(self.curves):
            print(f'done already: {self.curves}')
            return
        run('analysis_tools/plot_curves.py', self.work_dir, '--out', self.curves)

    def report(self) -> None:
        """Say how good the model is, where everything lies and what to try next."""
        metrics = json.loads(self.metrics.read_text(encoding='utf-8'))
        log = max(self.work_dir.glob('*/*.log'), key=lambda path: path.stat().st_mtime)
        pictures = [path for path in self.infer_dir.iterdir() if path.suffix != '.json']
        config, checkpoint = os.path.relpath(CONFIG), self.checkpoint
        print(f"""
=== Done: {metrics['accuracy/top1']:.1f} % of the test images are classified correctly ===

checkpoint         {checkpoint}
log                {log}
curves             {self.curves}
annotated picture  {pictures[0]}

Try next:
  python tools/infer.py {config} YOUR_IMAGE --checkpoint {checkpoint}
  python tools/train.py {config} --cfg-options model.backbone.drop_path_rate=0.1
  python tools/train.py configs/eva02/eva02_tiny_p14_8xb16_in1k.py   (needs ImageNet)
  docs/en/custom_dataset.md      your own images, in ten lines
  docs/en/configs.md             how configs work
  docs/en/model_zoo.md           the released EVA models, ready to use by name""")


def prepare(work_dir: Path, *, fresh: bool) -> None:
    """Make the work folder, or clear it if an earlier quickstart made it.

    Raises:
        StepFailedError: The folder to clear is not ours.
    """
    marker = work_dir / MARKER
    if fresh and work_dir.exists():
        if not marker.exists():
            raise StepFailedError(
                f'--fresh: {work_dir} was not made by the quickstart (it has no {MARKER}), so it '
                'is not deleted. Delete it yourself, or choose another --work-dir.'
            )
        shutil.rmtree(work_dir)
    if not marker.exists():
        work_dir.mkdir(parents=True, exist_ok=True)
        marker.touch()


def main() -> int:
    args = parse_args()
    quickstart = Quickstart(args.work_dir, args.data_dir, args.epochs, args.cfg_options)
    try:
        prepare(args.work_dir, fresh=args.fresh)
        quickstart.write_digits()
        quickstart.train()
        quickstart.test()
        quickstart.infer()
        quickstart.plot()
    except StepFailedError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on where it stopped.', file=sys.stderr)
        return 130
    quickstart.report()
    return 0


if __name__ == '__main__':
    sys.exit(main())
