// In a page of another origin: Uppy uploads one file, is paused and resumed, and tells what came of it.
import Uppy from '@uppy/core'
import Tus from '@uppy/tus'

const query = new URLSearchParams(location.search)
const bytes = Uint8Array.from({ length: Number(query.get('size')) }, (_, at) => (at * 7) % 251)
const uppy = new Uppy().use(Tus, { endpoint: query.get('endpoint'), chunkSize: 2_000_000 })

let pauses = 0
uppy.on('upload-progress', (file, progress) => {
  if (pauses || progress.bytesUploaded < bytes.length / 2) return
  pauses += 1
  uppy.pauseResume(file.id)
  setTimeout(() => uppy.pauseResume(file.id), 300)
})

const run = async () => {
  uppy.addFile({ name: 'grüße.bin', type: 'text/html', data: new Blob([bytes], { type: 'text/html' }) })
  const { successful, failed } = await uppy.upload()
  return { pauses, urls: successful.map((file) => file.uploadURL), errors: failed.map((file) => file.error) }
}

run().catch((error) => ({ error: String(error) })).then((result) =>
  fetch('result', { method: 'POST', body: JSON.stringify(result) }))
