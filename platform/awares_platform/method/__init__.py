"""The method's parts as the configuration names them, and what is made of them.

seams        imports and checks a part that a user names as `module:attribute`
environment  what a policy may ask for, and the episodes played in it
reward       what an episode earns
play         many episodes at once on one engine
answers      the base policy's answers at low and at full resolution
labeller     two answers to a label and a target request, by a judge and a grounding
"""
