"""Serves a policy over HTTP. A request passes these modules:

    proxy.py     cleans the headers in Ray Serve's proxy
    routes.py    checks the API key and the size, in a replica
    openai.py    turns the body into a question
    remote.py, data_url.py    fetch or decode the images
    croploop.py  plays one conversation for each of the `n` choices
    talk.py      plays a conversation on the engine until the policy answers
    reply.py     writes the response, or the chunks of a stream

`awares serve` (job.py) and a RayService (app.py) build the same application.
"""
