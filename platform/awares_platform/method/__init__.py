"""Builds the parts of the method that the configuration names, and plays episodes.

seams        imports and checks a part that a user names as `module:attribute`
parts        checks all parts that a job uses, before anything starts
family       the model family of the policy
environment  the crops that a policy may request, and the settings of an episode
reward       the reward of an episode
play         many episodes at once on one engine
answers      the base policy's answers at low and at full resolution
judge        compares two answers to a sample
grounding    locates the evidence for an answer in the image
labeller     derives a sample's label and target crops from its two answers
chat_client  a client of a chat endpoint, for an LLM judge and a grounding model
"""
