import { byId, connect, make, setState } from './app.js';

const connected = await connect();
if (connected) {
  for (const [name, value] of Object.entries(connected.gpu)) {
    byId('about').append(make('dt', {}, name), make('dd', {}, value === true ? 'yes' : value === false ? 'no' : `${value}`));
  }
  setState('done');
}
