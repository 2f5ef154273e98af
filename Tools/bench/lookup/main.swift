import Foundation
import Store

// Times Snapshot.locate for ids in a file, one on each line: each id alone, the store open and in memory.
//
//     lookup-bench STORE IDS
//
// Prints one line of JSON: ids, how many were found, and the median and 99th percentile in microseconds. The first pass over the
// ids is not counted: it brings the pages into memory.

func fail(_ message: String, code: Int32) -> Never {
    try? FileHandle.standardError.write(contentsOf: Data("lookup-bench: \(message)\n".utf8))
    exit(code)
}
guard CommandLine.arguments.count == 3 else { fail("usage: lookup-bench STORE IDS", code: 2) }
guard let text = try? String(contentsOfFile: CommandLine.arguments[2], encoding: .utf8) else {
    fail("cannot read \(CommandLine.arguments[2])", code: 5)
}
let identifiers = text.split(separator: "\n").map(String.init)

let snapshot = try Snapshot.open(at: CommandLine.arguments[1])
var foundCount = 0
var microseconds: [Double] = []
for pass in 0..<2 {
    for identifier in identifiers {
        let start = ContinuousClock.now
        let found = try snapshot.locate(identifier: identifier)
        let duration = (ContinuousClock.now - start).components
        guard pass > 0 else { continue }
        microseconds.append(Double(duration.seconds) * 1e6 + Double(duration.attoseconds) / 1e12)
        if found != nil { foundCount += 1 }
    }
}
guard !microseconds.isEmpty else { fail("\(CommandLine.arguments[2]) has no ids", code: 3) }
microseconds.sort()
let (median, p99) = (microseconds[microseconds.count / 2], microseconds[microseconds.count * 99 / 100])
print("{\"ids\":\(identifiers.count),\"found\":\(foundCount),\"median\":\(median),\"p99\":\(p99)}")
