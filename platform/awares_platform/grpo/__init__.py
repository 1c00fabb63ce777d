"""Trains a policy by disaggregated GRPO: rollout actors sample episodes while a learner trains.

The docstring of `job` has a diagram.

    job           defines the parts of the job, and its result
    supervisor    starts and watches the controller and the trainer, and records each step
    controller    gives prompts to the actors, and serves batches to the learner
    fleet         starts and watches the actors
    actor         the interface through which the controller uses an actor
    rollout       an actor that runs episodes on one engine and loads new weights
    learner       one rank of the trainer, which publishes weights and saves checkpoints
    group         the prompts, groups and batches that these parts exchange
"""
