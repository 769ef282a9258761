# SPDX-License-Identifier: Apache-2.0
"""The server: FedAvg, training only, and the time of day after each round in the log."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

SHAPES = ((64, 32), (32,), (32, 10), (10,))

app = ServerApp()


def stamp(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
    """Called by Flower before the first round and after each."""
    print(f"bench round {server_round} at {time.time():.6f}", flush=True)
    return None


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Wait for the nodes, then run the rounds."""
    nodes = int(context.run_config["nodes"])
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.01)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    arrays = ArrayRecord([np.zeros(shape, np.float32) for shape in SHAPES])
    strategy.start(grid, arrays, num_rounds=int(context.run_config["rounds"]), evaluate_fn=stamp)
