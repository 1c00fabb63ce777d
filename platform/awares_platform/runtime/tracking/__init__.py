"""Sends a job's metrics and samples to trackers, each in a thread of its own.

    Run -- metrics, series, samples --+-- courier.py -- tensorboard.py           always
                                      +-- courier.py -- weights_and_biases.py    tracking.wandb
                                      +-- courier.py -- mlflow_runs.py           tracking.mlflow

A tracker that fails or hangs costs only its own values. metrics.jsonl holds all of them.
"""
