"""What every tool does around its work."""

import torch.distributed as dist

from evamm.engine.runner import launch


def test_a_finished_tool_leaves_its_process_group(tmp_path):
    """Its threads would outlive the interpreter and may abort the finished process."""

    def main():
        dist.init_process_group(
            'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
        )

    assert launch.run_tool(main) == 0
    assert not dist.is_initialized()
    assert launch.run_tool(lambda: None) == 0  # and needs none
