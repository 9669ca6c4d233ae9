// Uploads a file with tus-js-client:
// node upload.mjs FILE endpoint|uploadUrl URL CHUNK_SIZE [FIRST_RETRY_MS] [PARALLEL_UPLOADS]
// Prints the URL of the upload and exits with 0, or prints the error and exits with 1.
import { createReadStream } from 'node:fs'
import { Upload } from 'tus-js-client'

const [file, how, url, chunkSize, firstRetry = '0', parallelUploads = '1'] = process.argv.slice(2)

const upload = new Upload(createReadStream(file), {
  parallelUploads: Number(parallelUploads),
  [how]: url,
  chunkSize: Number(chunkSize),
  retryDelays: [Number(firstRetry), 200, 500, 1000, 1000, 1000],
  metadata: { filename: 'a file.bin', note: 'grüße' },
  onError(error) {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess() {
    console.log(upload.url)
    process.exit(0)
  },
})

upload.start()
