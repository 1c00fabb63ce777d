"""Trains a policy by disaggregated GRPO: rollout actors sample episodes while a learner trains.

The docstring of `job` has a diagram of both loops. The first modules to read come first.

    job           defines the parts of the job, and its result
    supervisor    starts and watches the controller and the trainer, and records each step
    controller    gives prompts to the actors, and serves batches to the learner
    fleet         starts and watches the actors
    actor         the interface through which the controller uses an actor
    rollout       an actor that runs episodes on one engine and loads new weights
    learner       one rank of the trainer, which publishes weights and saves checkpoints
    group         the prompts, groups and batches that these parts exchange
    validation    decides which versions the actors answer held-out questions with
    validated     measures a version, and chooses the best one
    record_book   the validated versions, stored durably
    order         what the controller tells the learner beside batches
    exporting     exports the best and the last policy
    unusable      counts the groups that cannot be trained on
    prompts       the run's order of prompts
    buffer        the prompts to roll out, and the groups that wait for the learner
    collecting    sets the garbage collector of the controller's process
    announcing    tells the actors of new weights
    sizing        decides how many actors the run wants
    step_rows     the metrics that the driver has not written yet
    line          the actors that wait for room in the buffer
    ready         the groups that are ready to train on, and the settled prompts' numbers
    journal       the finished groups, stored durably
    recorder      writes finished groups to the journal in a thread
    segment       encodes a segment of the journal as a parquet file
    lineage       counts the updates between two weight versions
    scoring       the advantages and the outcome of a group
    batch_scale   divides advantages by the spread of a whole batch's rewards
    rewarding     scores groups in reward workers, and replaces lost workers
    reward_actor  a reward worker, which computes rewards in a process of its own
    shard         splits a batch evenly over ranks and forward passes
    objective     the losses of forward passes
    chosen_loss   the policy loss that the configuration names
    reference     the frozen starting policy, for the KL term
    pixels        caches the processed views
    warming       prepares the views of the next batch during training
    guards        watches the metrics, and says when to warn, stop or restore
    sample_table  table rows of a step's episodes, for the run's trackers
    step_metrics, loss_metrics, engine_metrics, learner_speed    the metrics of a step
"""
