// An OAuth2 server that is not ours, on a free port of the loopback interface; its address is the first line
// of its standard output. The scope of a request says how it is answered: `short` grants a second, `refused`
// nothing, `down` neither. It ends when its standard input does.
import { OAuth2Server } from 'oauth2-mock-server';

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
server.service.on('beforeResponse', (answer, request) => {
  const { scope } = request.body;
  if (scope === 'short') answer.body.expires_in = 1;
  if (scope === 'refused') Object.assign(answer, { statusCode: 401, body: { error: 'invalid_client' } });
  if (scope === 'down') Object.assign(answer, { statusCode: 503, body: {} });
  console.error(JSON.stringify({ scope, authorization: request.headers.authorization, body: request.body }));
});
await server.start(0, '127.0.0.1');
console.log(`http://127.0.0.1:${server.address().port}`);
process.stdin.resume().on('end', () => process.exit(0));
