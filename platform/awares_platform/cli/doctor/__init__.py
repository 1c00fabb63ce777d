"""Implements `awares doctor`: checks a cluster before a run, and names the remedy of each fault.

    process                           checks in this process
    driver                            run directory, nodes, clean-up
    one actor for each learner rank   its node, all-reduce, loading of the policy, updates
    one actor for the engine          its node, store, endpoints, loading of the policy, updates

An update is a few training steps of the base policy. The learner publishes the changed weights in
the object store, and the engine loads them. The relative canary then compares how the update
changes logprobs in the learner and in the engine. One run of `awares doctor` is called a visit.

job.py         runs all checks of a visit
visit.py       collects the findings of a visit, and keeps its time limit
loop.py        checks the all-reduce, the trainer, the engine and the updates
diagnosis.py   presents all findings of a visit, as a table and as JSON
finding.py     defines the finding of one check
examine.py     runs one check within a time limit
redaction.py   removes secrets from texts
placement.py   reserves the nodes that a run would use
node.py        runs all checks of one node
machine.py     checks GPUs, disks and shared memory of one node
clock.py       compares a node's clock with the store's clock
storage.py     checks reads, writes, conditions and rates of the object store
endpoints.py   asks the judge model and the grounding model one question each
collective.py  checks an all-reduce over the learner's ranks
questions.py   generates the questions that train and check the update
trainee.py     loads the base policy into the trainer, and trains the update
learner.py     defines the actor of one learner rank
player.py      defines the actor of the engine
"""
