"""The command `awares doctor`: checks of a cluster before a run, and the remedy of each fault.

    driver      nodes --> learner actors, one per rank    machine, all-reduce, load, update
                      +-> one engine actor                machine, store, endpoints, load, update

    update      learners --publish--> weight bus --load, relative canary--> engine

job.py         runs the checks in this order, and collects their findings
diagnosis.py   all findings of a visit, as a table and as JSON
finding.py     the finding of one check
examine.py     runs one check within a time limit
redaction.py   removes secrets from texts
placement.py   reserves the nodes that a run would use
machine.py     checks GPUs, disks and shared memory of one node
clock.py       compares a node's clock with the store's clock
storage.py     checks reads, writes, conditions and rates of the object store
endpoints.py   asks the judge and the grounding
collective.py  checks an all-reduce over the learner's ranks
questions.py   the prompts of the update, which need no data set
trainee.py     the base policy in the trainer, and its update
learner.py     the actor of one learner rank
player.py      the actor of the engine
"""
