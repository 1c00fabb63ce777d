"""Serves a policy over HTTP.

The endpoint takes a conversation about no image or several, up to engine.max_images. It returns the
answer and the token counts.

    client --HTTP--> Serve proxy --(queue: max_queued_requests, else 503 + Retry-After)--> replica
                                                                                             |
      replica (autoscaled):                                                                  |
        routes.py    token, size limit, routes                                  <------------+
        openai.py    json_body.py and schema.py check the body; the result is a ChatQuestion
        json_grammar.py  the grammar of an answer in JSON
        data_url.py  decodes images in data: URLs
        remote.py    fetches images by URL: allowlisted hosts, public addresses, no redirects
        croploop.py  decodes the images, plays one conversation per choice -> ServedAnswer
        talk.py      first views -> request -> crops -> answer; no answer is empty or a request
        reply.py     writes the response, or the chunks of a stream
                                      |
        engine/engine.py              vLLM, for the choices of at most max_ongoing_requests requests

proxy.py cleans the headers of each request in Ray Serve's proxies. `awares serve` (job.py) and a
RayService (app.py) build the same application.
"""
