/// The style sheet of a report: system fonts, light and dark, paper. Blue and orange are told apart with any colour vision, and every
/// text has a contrast of at least 4.5 with its ground in both schemes.
let reportStyle = """
    :root { color-scheme: light dark; --ground: #fff; --panel: #f4f5f7; --ink: #1c1f24; --quiet: #5a6270; --rule: #d5d9e0;
      --helpful: #0b5cad; --harmful: #a84b00; --bar: #7b8698; --link: #0b5cad;
      --l0: #0b5cad; --l1: #a84b00; --l2: #1b7a3d; --l3: #8a2a8f; --l4: #806000; --l5: #b3123f; --l6: #087a80; --l7: #555d6b; }
    @media (prefers-color-scheme: dark) { :root { --ground: #14171c; --panel: #1e2229; --ink: #e6e9ee; --quiet: #a3acba; --rule: #39414d;
      --helpful: #6cb2ff; --harmful: #ffa15c; --bar: #8793a6; --link: #8cc2ff;
      --l0: #6cb2ff; --l1: #ffa15c; --l2: #6fd08c; --l3: #dd94e2; --l4: #dfc25a; --l5: #ff8aa5; --l6: #5fd0d6; --l7: #b4bcc9; } }
    * { box-sizing: border-box; }
    body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.25rem 3rem; background: var(--ground); color: var(--ink);
      font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
    h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
    h2 { font-size: 1.2rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
    section { border-top: 1px solid var(--rule); padding: 1.75rem 0 .5rem; margin-top: 1.75rem; }
    a { color: var(--link); } a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
    code { font: .9em ui-monospace, "DejaVu Sans Mono", Menlo, monospace; overflow-wrap: anywhere; }
    nav ol { padding-left: 0; list-style-position: inside; columns: 24rem auto; column-gap: 3.5rem; margin: 1rem 0 0; font-size: .9rem; }
    nav li { break-inside: avoid; margin-bottom: .15rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
    .quiet, .source, figcaption, caption, footer { color: var(--quiet); }
    .source { margin: 0; font-size: .9rem; }
    .helpful { color: var(--helpful); } .harmful { color: var(--harmful); }
    .notes { background: var(--panel); border-left: 4px solid var(--harmful); padding: .6rem .75rem .6rem 2rem; margin: 1rem 0; }
    blockquote { margin: .5rem 0 1rem; padding: .6rem 1rem; border-left: 4px solid var(--rule); background: var(--panel); white-space: pre-wrap;
      overflow-wrap: anywhere; }
    .scroll { overflow-x: auto; }
    table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.25rem; font-size: .9rem; }
    caption { text-align: left; padding-bottom: .35rem; }
    th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--rule); font-weight: normal; }
    thead th { color: var(--quiet); white-space: nowrap; } tbody th { white-space: nowrap; }
    td code, td bdi { white-space: nowrap; } td div, td details { min-width: 16rem; white-space: pre-line; overflow-wrap: anywhere; }
    .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
    figure { margin: 1rem 0 1.25rem; } figcaption { font-size: .9rem; margin-top: .25rem; }
    summary { cursor: pointer; } .numbers { font-size: .9rem; margin-top: .35rem; }
    svg { display: block; } svg.bar { display: inline-block; vertical-align: middle; }
    svg text { fill: var(--quiet); font-size: 11px; }
    svg .helpful { fill: var(--helpful); } svg .harmful { fill: var(--harmful); }
    svg rect.bar { fill: var(--bar); } .grid { stroke: var(--rule); } .axis { stroke: var(--quiet); }
    .line { fill: none; stroke-width: 1.75; } .many { stroke: var(--l0); stroke-opacity: .35; stroke-width: 1; }
    .line0 { stroke: var(--l0); } .line1 { stroke: var(--l1); stroke-dasharray: 7 3; } .line2 { stroke: var(--l2); stroke-dasharray: 2 2; }
    .line3 { stroke: var(--l3); stroke-dasharray: 9 3 2 3; } .line4 { stroke: var(--l4); } .line5 { stroke: var(--l5); stroke-dasharray: 7 3; }
    .line6 { stroke: var(--l6); stroke-dasharray: 2 2; } .line7 { stroke: var(--l7); stroke-dasharray: 9 3 2 3; }
    @media screen and (max-width: 42rem) { .ranked thead { display: none; }
      .ranked tr { display: flex; flex-wrap: wrap; gap: 0 .9rem; padding: .4rem 0; border-bottom: 1px solid var(--rule); }
      .ranked th, .ranked td { border: 0; padding: 0; } .ranked td:last-child { flex-basis: 100%; } .ranked td div, .ranked td details { min-width: 0; } }
    footer { border-top: 1px solid var(--rule); margin-top: 2rem; padding-top: .75rem; font-size: .85rem; } footer p { margin: .25rem 0; }
    @media print { :root { --ground: #fff; --panel: #fff; --ink: #000; --quiet: #444; --rule: #bbb; --helpful: #0b5cad; --harmful: #a84b00;
        --bar: #7b8698; --link: #000; --l0: #0b5cad; --l1: #a84b00; --l2: #1b7a3d; --l3: #8a2a8f; --l4: #806000; --l5: #b3123f; --l6: #087a80; --l7: #555d6b; }
      body { max-width: none; padding: 0; font-size: 10pt; } nav, .numbers { display: none; } section { break-before: page; border: 0; margin: 0; }
      header + main section:first-child { break-before: auto; }
      #store { break-before: auto; } table { font-size: 8pt; } th, td { padding-block: .15rem; }
      figure, tr, blockquote { break-inside: avoid; } .scroll { overflow: visible; } svg { max-width: 100%; height: auto; } svg.bar { height: 12px; }
      a { text-decoration: none; } * { print-color-adjust: exact; } }

    """
