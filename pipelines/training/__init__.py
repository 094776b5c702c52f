"""What recipes share when they train: device, loop, checkpoints, export."""
