"""A web crawler over a small site that this program serves itself: crawlers fetch, an actor knows what was seen."""

import asyncio
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import actors as ray

PAGES = 30
CRAWLERS = 4


class Site(BaseHTTPRequestHandler):
    """Page n links to 2n + 1, 2n + 2, back to the first, and sometimes to one that is not there."""

    def do_GET(self):
        """Answers with a page of links."""
        number = int(self.path.strip("/") or 0)
        if number >= PAGES:
            self.send_error(404)
            return
        links = [2 * number + 1, 2 * number + 2, 0]
        body = "".join(f'<a href="/{link}">page {link}</a>' for link in links).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


@ray.remote
class Frontier:
    """Knows which pages were seen, and hands out those that were not."""

    def __init__(self, first):
        self.seen = {first}
        self.waiting = asyncio.Queue()
        self.waiting.put_nowait(first)
        self.open = 1

    async def next(self):
        """Returns a page to fetch, or None when all is done."""
        return await self.waiting.get()

    async def found(self, links):
        """Takes the links of a page that was fetched."""
        for link in links:
            if link not in self.seen:
                self.seen.add(link)
                self.open += 1
                self.waiting.put_nowait(link)
        self.open -= 1
        if self.open == 0:
            for _ in range(CRAWLERS):
                self.waiting.put_nowait(None)


@ray.remote
class Crawler:
    """Fetches pages until there are none."""

    def crawl(self, frontier):
        """Returns the pages fetched and those that were missing."""
        fetched, missing = [], []
        while (url := ray.get(frontier.next.remote())) is not None:
            try:
                with urllib.request.urlopen(url) as page:
                    links = re.findall(r'href="([^"]+)"', page.read().decode())
                fetched.append(url)
            except urllib.error.HTTPError:
                links = []
                missing.append(url)
            ray.get(frontier.found.remote([urllib.parse.urljoin(url, link) for link in links]))
        return fetched, missing


server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
threading.Thread(target=server.serve_forever, daemon=True).start()

ray.init(num_cpus=2)

frontier = Frontier.remote(f"http://127.0.0.1:{server.server_port}/0")
crawlers = [Crawler.remote() for _ in range(CRAWLERS)]
reports = ray.get([crawler.crawl.remote(frontier) for crawler in crawlers])

fetched = [url for pages, _ in reports for url in pages]
missing = [url for _, pages in reports for url in pages]
print(f"{len(fetched)} pages, each once: {len(set(fetched)) == len(fetched)}")
print(f"{len(missing)} links led nowhere")

ray.shutdown()
server.shutdown()
server.server_close()
