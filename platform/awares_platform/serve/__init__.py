"""Serves a policy over HTTP.

The endpoint takes a conversation with any number of images from 0 to engine.max_images. It returns
the answer and the token counts.

    client --HTTP--> Serve proxy --(queue: max_queued_requests, else 503 + Retry-After)--> replica
                                                                                             |
      replica (autoscaled):                                                                  |
        routes.py    API keys, size limit, routes                               <------------+
        openai.py    turns the body, which json_body.py and schema.py check, into a ChatQuestion
        json_grammar.py  builds the grammar of an answer in JSON
        data_url.py  decodes images in data: URLs
        remote.py    fetches images by URL: allowlisted hosts, public addresses, no redirects
        croploop.py  decodes the images, and plays one conversation for each of the `n` choices
        talk.py      plays a conversation: it shows views and crops until the policy answers
        reply.py     writes the response, or the chunks of a stream
                                      |
        engine/engine.py              vLLM, for at most max_ongoing_requests requests at once

proxy.py cleans the headers of each request in Ray Serve's proxies. `awares serve` (job.py) and a
RayService (app.py) build the same application.
"""
