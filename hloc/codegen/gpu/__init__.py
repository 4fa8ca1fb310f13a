"""Code for devices that run many threads over the same function: NVIDIA's GPUs, and their emulator on a CPU.

A scheduled computation becomes a list of commands for the host (`commands.py`), most of which launch kernels. A kernel
step becomes one launch or several (`step.py`): loop nests over roots are spread over threads (`loops.py`), ops with
loops of their own are written by `emitters/`. Folds (`reductions.py`), scans (`scans.py`), rows (`row_kernel.py`,
`row_launches.py`) and transposes (`transposes.py`) are shared among threads in a way of their own. What threads know
of each other and do together goes through `intrinsics.py`, which has two dialects: PTX's and the emulator's.
"""
