"""Implements `awares doctor`: checks a cluster before a run, and names the remedy of each fault.

    process                           checks in this process
    driver                            run directory, nodes, clean-up
    one actor for each learner rank   its node, all-reduce, loading of the policy, updates
    one actor for the engine          its node, store, endpoints, loading of the policy, updates

An update trains the base policy for a few steps, and sends the weights to the engine.
"""
