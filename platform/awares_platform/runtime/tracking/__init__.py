"""Sends a job's metrics and samples to trackers, each in a thread of its own.

    Run -- metrics, series, samples --+-- courier.py -- tensorboard.py           if installed
                                      +-- courier.py -- weights_and_biases.py    tracking.wandb
                                      +-- courier.py -- mlflow_runs.py           tracking.mlflow

The last column states when a tracker is used: if it is installed, or if a setting names it. A
tracker that fails or hangs loses only its own values. metrics.jsonl holds all metrics.
"""
