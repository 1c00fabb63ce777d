"""Serves a policy over HTTP.

The endpoint takes one image and one question. It returns the answer and the token counts.

    client --HTTP--> Serve proxy --(queue: max_queued_requests, else 503 + Retry-After)--> replica
                                                                                             |
      replica (autoscaled):                                                                  |
        routes.py    token, size limit, routes                                  <------------+
        openai.py    reads the question from a chat request, writes the chat response
        remote.py    fetches images by URL: allowlisted hosts, public addresses, no redirects
        croploop.py  decode -> run_episode(low view -> request -> crops -> answer) -> ServedAnswer
                                      |
        engine/engine.py              vLLM, at most max_ongoing_requests episodes in flight

`awares serve` (job.py) and a RayService (app.py) build the same application.
"""
