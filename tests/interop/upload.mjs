// Uploads a file with tus-js-client:
//   node upload.mjs PACKAGE FILE endpoint|uploadUrl URL CHUNK_SIZE [FIRST_RETRY_MS [OPTIONS_AS_JSON]]
// Prints the URL of the upload and exits with 0, or prints the error and exits with 1.
import { createReadStream } from 'node:fs'
import { PassThrough } from 'node:stream'

const [name, file, how, url, chunkSize, firstRetry = '0', more = '{}'] = process.argv.slice(2)
const { Upload } = await import(name)
const options = JSON.parse(more)
// A stream whose size nobody knows is what a length told later is for; of a file's stream both versions of the
// client take the size, and then announce more bytes than are left (tried).
const input = createReadStream(file)

const upload = new Upload(options.uploadLengthDeferred ? input.pipe(new PassThrough()) : input, {
  [how]: url,
  chunkSize: Number(chunkSize),
  retryDelays: [Number(firstRetry), 200, 500, 1000, 1000, 1000],
  metadata: { filename: 'a file.bin', note: 'grüße' },
  onError(error) {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess() {
    console.log(upload.url ?? url)
    process.exit(0)
  },
  ...options,
})

upload.start()
