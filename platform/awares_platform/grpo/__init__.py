"""Disaggregated GRPO: rollout actors and a learner that never wait for each other's weights.

`job` draws the loops.

    job           starts everything, reports     controller    tends the actors, serves the learner
    group         what travels between them      buffer        finished groups: bound and gate
    prompts       the run's order of prompts     journal       every group, durable
    scoring       rewards and advantages         rollout       the actor: engine, episodes, weights
    shard         a batch cut into equal work    learner       one rank: update, publish, checkpoint
    pixels        views processed once           step_metrics, loss_metrics    what is measured
"""
