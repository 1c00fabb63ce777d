"""Sends a job's metrics and samples to trackers, each in a thread of its own.

    Run -- metrics, series, samples --+-- courier.py -- tensorboard.py           if installed
                                      +-- courier.py -- weights_and_biases.py    tracking.wandb
                                      +-- courier.py -- mlflow_runs.py           tracking.mlflow

The last column states when a tracker is used. If a tracker fails, only its own values are lost.
"""
