"""A Ray cluster of several machines that are processes of this one, until its input ends.

python cluster.py MACHINES: the head carries out nothing, each of the others has one processor. Its
address is the first line that it prints.
"""

import sys

from ray.cluster_utils import Cluster

HOME = {"node_ip_address": "127.0.0.1", "include_dashboard": False}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **HOME})
    for _ in range(int(sys.argv[1])):
        cluster.add_node(num_cpus=1, resources={"slice": 1}, **HOME)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
