"""Custom calls that say something of a value and give it back."""

ANNOTATING_CALLS = (
    "LayoutConstraint",
    "MoveToDevice",
    "MoveToHost",
    "PinToDevice",
    "PinToDeviceSram",
    "PinToHost",
    "ShardBarrierFrom",
    "ShardBarrierTo",
    "Sharding",
    "annotate_device_placement",
    "xla.sdy.FuncResultSharding",
    "xla.sdy.PropagationBarrier",
    "xla.sdy.ShardingGroup",
)
"""Their targets: on which devices, in which memory or in which layout a value lives."""

PARTITIONED_CALLS = ("SPMDFullToShardShape", "SPMDShardToFullShape")
"""Targets that give back the operand where nothing is split over devices."""
