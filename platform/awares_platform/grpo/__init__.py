"""Disaggregated GRPO: rollout actors and a learner that never wait for each other's weights. `job` draws the loops.

job         starts everything, reports          controller  tends the actors, serves the learner
group       what travels between them           buffer      finished groups: staleness bound, capacity gate
prompts     the run's order of prompts          journal     every group, durable
scoring     rollout -> rewards, advantages      rollout     the actor: engine, episodes, weights from the bus
shard       a batch cut into equal work         learner     the trainer's rank: update, publish, checkpoint
pixels      views processed once                step_metrics, loss_metrics   what is measured
"""
