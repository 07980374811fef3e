"""A detector trains the same with DDP and with FSDP."""

import os
import subprocess
import sys
from pathlib import Path

from evamm.datasets.digits.detection import write_detection

SCRIPT = Path(__file__).with_name('detection_runs.py')


def test_fsdp_with_recomputation_ends_with_the_weights_of_ddp(tmp_path):
    """Layer decay, accumulation and the average of the weights included."""
    write_detection(tmp_path, train_scenes=16, val_scenes=1, test_scenes=1)
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    done = subprocess.run(
        [*command, '--nproc_per_node=2', str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={
            **os.environ,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': os.pathsep.join(
                [str(SCRIPT.parents[2]), os.environ.get('PYTHONPATH', '')]
            ),
        },
    )
    assert done.returncode == 0 and (tmp_path / 'done').exists(), done.stderr[-4000:]
