"""The endpoint: one image and one question in, an answer and what it cost out.

    client --HTTP--> Serve proxy --(queue: max_queued_requests, else 503 + Retry-After)--> replica x (autoscaled)
                                                                                             |
      replica:  routes.py    token, size, routes                                             |
                openai.py    the chat-completions dialect, both directions      <------------+
                remote.py    images behind URLs: allowlisted hosts, public addresses, no redirects
                croploop.py  decode -> run_episode(low view -> request -> crops -> answer) -> ServedAnswer
                                              |
                awares_platform.engine.engine.Engine (vLLM, in flight: max_ongoing_requests episodes)

`app.py` builds the Ray Serve application, for `awares serve` and for a serveConfigV2 alike.
"""
