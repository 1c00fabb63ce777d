"""Trains a policy by disaggregated GRPO: rollout actors sample episodes while a learner trains.

job           defines the parts of the job, with a diagram
supervisor    starts and restarts the controller and the trainer
controller    gives prompts to the actors, and batches to the learner
rollout       an actor that runs episodes on one engine
learner       one rank of the trainer, which publishes weights
group         the data that these parts exchange
"""
