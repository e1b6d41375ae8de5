"""The tasks of a grid on machines that a cluster gives: by Ray, or by Slurm."""
