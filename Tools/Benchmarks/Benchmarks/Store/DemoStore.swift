import Curvature
import Engine
import Foundation
import Schema

/// A store of the demo set with a curvature, in a temporary folder that is removed at exit.
struct DemoStore: Sendable {
    static let shared = DemoStore()

    let folder: URL
    let path: String
    let options = IngestOptions(encoding: .q4)

    private init() {
        prepareProcess()
        folder = FileManager.default.temporaryDirectory.appending(path: "lorif-benchmark-\(UUID().uuidString)")
        path = folder.appending(path: "demo.lorif").path
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            _ = try Database(at: path).ingest([Self.batch("train")], options: options)
            _ = try Database(at: path).fit(options: FitOptions(rank: 64, workers: availableProcessorCount()))
        } catch {
            fatalError("no demo store in \(folder.path): \(error)")
        }
        atexit { try? FileManager.default.removeItem(at: DemoStore.shared.folder) }
    }

    /// A batch of the repository's demo set.
    static func batch(_ name: String) -> String {
        var root = URL(filePath: #filePath)
        for _ in 0..<5 { root.deleteLastPathComponent() }
        return root.appending(path: "Tools/demo/\(name).safetensors").path
    }

    /// The ten best for each of the demo's queries.
    func request(_ method: Method) -> QueryRequest {
        var request = QueryRequest(method: method, queriesPath: Self.batch("query"), topCount: 10)
        request.machine = MachineModel.load() ?? .standard
        return request
    }
}
