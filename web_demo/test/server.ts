/** A static server that can be made slow, and to serve other contents. */

import {readFile} from 'node:fs/promises';
import {createServer, type ServerResponse} from 'node:http';
import type {AddressInfo} from 'node:net';
import {extname, join, normalize} from 'node:path';

const TYPES: Record<string, string> = {
  '.css': 'text/css',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.webmanifest': 'application/manifest+json',
};

/** The root of the repository, from which the tests are run. */
export const ROOT = join(process.cwd(), '..');
export const SITE = join(ROOT, 'web_demo', 'site');

/** Serves the page at `/`, and other folders of the repository at `/repository/`. */
export class Server {
  /** What is served in place of a file; null where it is to be missing. */
  readonly others = new Map<string, Buffer|null>();
  private readonly held = new Map<string, Promise<void>>();
  private readonly server = createServer((request, response) => {
    const path = new URL(request.url!, 'http://here').pathname;
    void this.serve(decodeURIComponent(path), response);
  });

  async start(): Promise<string> {
    await new Promise<void>(done => this.server.listen(0, '127.0.0.1', done));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  /** Sends half of a file, and the rest when the returned function is called. */
  hold(path: string): () => void {
    let release = () => {};
    this.held.set(path, new Promise(done => release = done));
    return release;
  }

  private async serve(path: string, response: ServerResponse): Promise<void> {
    const content = await this.content(path);
    if (content === null) {
      response.writeHead(404).end();
      return;
    }
    const type = TYPES[extname(path) || '.html'] ?? 'application/octet-stream';
    const headers = {'Content-Type': type, 'Content-Length': content.length};
    response.writeHead(200, headers);
    const waits = this.held.get(path);
    const half = waits ? content.length >> 1 : content.length;
    response.write(content.subarray(0, half));
    await waits;
    response.end(content.subarray(half));
  }

  private async content(path: string): Promise<Buffer|null> {
    const other = this.others.get(path);
    if (other !== undefined) return other;
    const prefix = '/repository/';
    const file = path.startsWith(prefix) ? join(ROOT, normalize(path.slice(prefix.length))) :
                                           join(SITE, normalize(path));
    return readFile(path.endsWith('/') ? join(file, 'index.html') : file)
        .catch(() => null);
  }
}
