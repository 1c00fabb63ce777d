"""Builds the configured environment, reward, judge and grounding, and plays episodes.

seams        imports, checks and builds a part that a setting names as `module:attribute`
parts        checks all parts that a job uses, before anything starts
family       builds the model family of the policy
environment  builds the environment, which offers crops, and the settings of an episode
reward       builds the reward of an episode
ratios       computes the share of visual tokens that the configured views retain
flops        counts the floating-point operations of forward and backward passes
play         plays many episodes at once on one engine
answers      asks the base policy for its answers at low and at full resolution
judge        builds the judge, which compares the two answers to a sample
grounding    builds the grounding, which locates the evidence for an answer in the image
verdicts     reads the verdict out of a judge's reply
correctness  reads whether an answer is right out of a judge's reply
box_reply    reads the boxes out of a grounding model's reply
box_units    tells fractions, thousandths and pixels apart, and converts boxes to pixels
spoken       separates a reply from a model's thoughts, and recognises refusals
labeller     derives a sample's label and target crops from the two answers
asking       asks a model, and asks once more if the reply cannot be parsed
prompt_file  reads the prompts of the built-in judge and grounding
rate_limit   keeps a client below a rate of requests and of tokens
chat_client  asks a chat endpoint, for an LLM judge and for a grounding model
"""
