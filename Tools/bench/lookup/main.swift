import Glibc
import Store

// Times Snapshot.locate for ids in a file, one on each line: each id alone, the store open and in memory.
//
//     lookup-bench STORE IDS
//
// Prints one line of JSON: ids, how many were found, and the median and 99th percentile in microseconds. The first pass over the
// ids is not counted: it brings the pages into memory.

guard CommandLine.arguments.count == 3 else {
    fputs("usage: lookup-bench STORE IDS\n", stderr)
    exit(2)
}
guard freopen(CommandLine.arguments[2], "r", stdin) != nil else {
    fputs("lookup-bench: cannot read \(CommandLine.arguments[2])\n", stderr)
    exit(5)
}
var identifiers: [String] = []
while let line = readLine() { identifiers.append(line) }

let snapshot = try Snapshot.open(at: CommandLine.arguments[1])
var microseconds: [Double] = []
var foundCount = 0
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
microseconds.sort()
func quantile(_ share: Double) -> Double {
    microseconds.isEmpty ? 0 : microseconds[min(microseconds.count - 1, Int(share * Double(microseconds.count)))]
}
print(
    "{\"ids\":\(identifiers.count),\"found\":\(foundCount),\"median\":\(quantile(0.5)),\"p99\":\(quantile(0.99))}")
