/** Small charts of the last minutes. Loaded when the first one is shown. */

import uPlot from "uplot";

export interface Chart {
  update: (at: number[], values: (number | null)[]) => void;
  destroy: () => void;
}

const HEIGHT = 110;

/** Draw one line in `host`, in the colours of the page. */
export function drawChart(host: HTMLElement, unit: string): Chart {
  const colour = (name: string): string => getComputedStyle(host).getPropertyValue(name).trim();
  const axis = { stroke: () => colour("--dim"), grid: { stroke: () => colour("--line"), width: 1 } };
  const chart = new uPlot(
    {
      width: host.clientWidth || 300,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.15 : 1] } },
      series: [
        {},
        {
          label: unit,
          stroke: () => colour("--accent"),
          fill: () => `${colour("--accent")}22`,
          width: 1.5,
          spanGaps: false,
          points: { show: false },
        },
      ],
      axes: [
        { ...axis, size: 28, space: 70, font: "11px system-ui" },
        { ...axis, size: 44, space: 28, font: "11px system-ui" },
      ],
    },
    [[], []],
    host,
  );
  const observer = new ResizeObserver(() =>
    chart.setSize({ width: host.clientWidth, height: HEIGHT }),
  );
  observer.observe(host);
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const redraw = (): void => chart.redraw();
  scheme.addEventListener("change", redraw);
  return {
    update: (at, values) => chart.setData([at, values]),
    destroy: () => {
      observer.disconnect();
      scheme.removeEventListener("change", redraw);
      chart.destroy();
    },
  };
}
