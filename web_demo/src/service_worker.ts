/** Keeps the page's files, so that it opens without a network once it has been loaded. */

/** Put in by build.mjs: all files of the page, and a hash of their contents. */
declare const FILES: readonly string[];
declare const VERSION: string;

/** Not the page's global scope, which is the only one that TypeScript is told of. */
const scope = self as unknown as ServiceWorkerGlobalScope;
const PREFIX = 'epnet-';
const CACHE = PREFIX + VERSION;

scope.addEventListener('install', event => {
  event.waitUntil(keepAll());
});

scope.addEventListener('activate', event => {
  event.waitUntil(dropOthers().then(() => scope.clients.claim()));
});

scope.addEventListener('fetch', event => {
  if (event.request.method === 'GET') event.respondWith(keptOrFetched(event.request));
});

async function keepAll(): Promise<void> {
  const cache = await caches.open(CACHE);
  // The page itself by the name that it is opened by; all anew where they have changed.
  const names = FILES.map(file => file === 'index.html' ? './' : file);
  await cache.addAll(names.map(name => new Request(name, {cache: 'no-cache'})));
}

async function dropOthers(): Promise<void> {
  const names = await caches.keys();
  const others = names.filter(name => name.startsWith(PREFIX) && name !== CACHE);
  await Promise.all(others.map(name => caches.delete(name)));
}

async function keptOrFetched(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const url = request.url.replace(/\/index\.html$/, '/');
  return await cache.match(url, {ignoreSearch: true}) ?? fetch(request);
}
