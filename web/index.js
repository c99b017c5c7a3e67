import { byId, connect, setState, showGpu } from './app.js';

const connected = await connect();
if (connected) {
  showGpu(byId('about'), connected.gpu);
  setState('done');
}
